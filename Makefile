# One door for every chore. The work itself is in etc/, where each script says
# at its top what it does and which variables it heeds.

.PHONY: build run test guest bench check fuzz distros debian setup clean help
.DEFAULT_GOAL := build

build: ## the static binary, .build/bin/hype
	@etc/build

run: ## a root shell in Alpine, in a virtual machine run by hype; GUEST_KERNEL=bzImage names another kernel
	@etc/run

test: ## everything that is checked, guests included
	@etc/test

guest: ## the guest that tests and benches boot: .build/guest/{bzImage,initrd.cpio.gz}; GUEST_CACHE=DIR, ALPINE=MIRROR-OR-FILE
	@etc/linux/guest/build
	@etc/initrd/build

bench: guest build ## user exits, host calls, memory and time of a boot, of requests to a disk and of a card's traffic, beside QEMU's
	@etc/bench

check: ## formatting, lints, documentation, scripts
	@etc/check

fuzz: ## every fuzz target, for FUZZ_SECONDS=12 each
	@etc/fuzz

distros: ## Debian's kernels, 6.1 and 6.12, cloud and full, on each transport and ring: what works (240 MB are fetched)
	@etc/distros

debian: ## what docs/debian.md says, from debootstrap to the power button; asks for root, takes minutes
	@etc/debian

setup: ## the Debian packages that all of these need, where they are missing
	@etc/setup build run host test guest

clean: ## what was built, and what was fetched for it
	rm -rf .build target fuzz/target

help: ## this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10
