# shellcheck shell=bash
# What the scripts in etc/ share: where things are, how to speak, and how to get
# a file that a Debian package holds without installing the package.
#
# To be sourced, by a script that has said `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$root/.build
# An ordinary user's PATH lacks the folders of modprobe, depmod and virtiofsd.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit "${die_status:-1}"; }
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo; then
		sudo -- "$@"
	else
		die "this needs root and there is no sudo; as root: $*"
	fi
}

# emulated: whether etc/kvm-host starts an emulated host, as it finds out with $HYPE
emulated() {
	case ${HYPE_KVM_HOST:-auto} in
	auto) ! "$HYPE" check >/dev/null 2>&1 ;;
	*) [ "$HYPE_KVM_HOST" = nested ] ;;
	esac
}

# fetch URL FILE: FILE is there whole or not at all
fetch() {
	local quiet=--progress-bar
	[ -t 2 ] || quiet=--silent
	curl --fail --location --show-error "$quiet" --retry 2 --connect-timeout 20 \
		--output "$2.part" -- "$1" && mv -- "$2.part" "$2"
}

# apt's own lists where they know the package; otherwise lists of our own, which
# need no root (a fresh container has none).
apt_options=()
apt_knows() {
	apt-cache "${apt_options[@]}" show --no-all-versions -- "$1" >/dev/null 2>&1
}
apt_prepare() {
	have apt-get || die "no apt-get here, to fetch $1 with"
	! apt_knows "$1" || return 0
	mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial"
	apt_options=(-o "Dir::State::lists=$build/apt/lists" -o "Dir::Cache=$build/apt")
	! apt_knows "$1" || return 0
	say "fetching the package lists ..."
	apt-get "${apt_options[@]}" -qq update >&2 || die "apt-get update failed"
	apt_knows "$1" || die "the package sources of this machine have no $1"
}

# unpack_package NAME DIR: what NAME holds, in DIR, without installing it
unpack_package() {
	local name=$1 dir=$2 deb
	mkdir -p "$build/deb"
	say "fetching the package $name ..."
	# apt as root would like to fetch as another user, who cannot write here.
	(cd "$build/deb" && apt-get "${apt_options[@]}" -o APT::Sandbox::User=root -qq download "$name" >&2) ||
		die "cannot fetch the package $name"
	for deb in "$build/deb/${name}"_*.deb; do :; done
	rm -rf "$dir.part"
	say "unpacking it ..."
	dpkg-deb -x "$deb" "$dir.part"
	rm -f "$deb"
	rm -rf "$dir"
	mv "$dir.part" "$dir"
}

# kernel_package NAME: the package that has the kernel, where NAME is of one that is
# empty but for what it depends on
kernel_package() {
	local package
	package=$(apt-cache "${apt_options[@]}" depends --important "$1" |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
	echo "${package:-$1}"
}

# use_kernel DIR: the kernel of a package that was unpacked there. Sets
# kernel_version, kernel_image and kernel_base, the folder that has its
# lib/modules.
use_kernel() {
	local image
	for image in "$1"/boot/vmlinuz-*; do kernel_image=$image; done
	[ -r "$kernel_image" ] || die "there is no kernel in $1"
	kernel_version=${kernel_image##*/vmlinuz-}
	kernel_base=$1
	# Where /lib is a link to usr/lib, packages ship usr/lib/modules.
	if [ ! -d "$kernel_base/lib/modules" ] && [ -d "$kernel_base/usr/lib/modules" ]; then
		ln -s usr/lib "$kernel_base/lib"
	fi
	[ -e "$kernel_base/lib/modules/$kernel_version/modules.dep.bin" ] ||
		depmod -b "$kernel_base" "$kernel_version"
}

# The distribution's packaged kernel, as installed here or else fetched into
# .build without installing it. Sets what use_kernel does; kernel_base is empty
# where the kernel is installed. KERNEL_FETCH=1 fetches even then.
packaged_kernel() {
	local image
	kernel_base=
	if [ -z "${KERNEL_FETCH-}" ]; then
		for image in $(printf '%s\n' /boot/vmlinuz-*-cloud-amd64 | sort -V); do
			if [ -r "$image" ] && [ -d "/lib/modules/${image#/boot/vmlinuz-}/kernel" ]; then
				kernel_image=$image kernel_version=${image#/boot/vmlinuz-}
			fi
		done
		[ -z "${kernel_version-}" ] || return 0
	fi
	for image in "$build"/kernel/boot/vmlinuz-*; do
		[ -r "$image" ] || {
			apt_prepare linux-image-cloud-amd64
			unpack_package "$(kernel_package linux-image-cloud-amd64)" "$build/kernel"
		}
		break
	done
	use_kernel "$build/kernel"
}

# module_files NAME...: the files of these modules of the packaged kernel and of
# those that they need, in the order to load them; a module that this kernel
# does not have, or has built in, is left out
module_files() {
	local name
	for name; do
		modprobe -d "${kernel_base:-/}" -S "$kernel_version" --show-depends "$name" 2>/dev/null || :
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# unpack_module FILE: the module, on stdout
unpack_module() {
	case $1 in
	*.xz) xz -dc -- "$1" ;;
	*.zst) zstd -qdc -- "$1" ;;
	*.gz) gzip -dc -- "$1" ;;
	*) cat -- "$1" ;;
	esac
}

# pack DIR: DIR as a cpio archive that is root's, whoever made it, on stdout
pack() {
	(
		cd "$1" || exit
		find . -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
		find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R +0:+0 --reproducible --quiet
	)
}
