# shellcheck shell=bash
# shellcheck disable=SC2034,SC2054 # argv is the result; commas within words
# The machines that are compared: the same kernel, initrd, memory and processor,
# one virtio console or one serial port, and nothing else.
#
# To be sourced. machine VMM SCENARIO sets argv, whose file names are those of
# the stage that etc/bench makes. VMM is hype or qemu, the second being microvm,
# whose virtio devices are on MMIO; q35 has them on PCI. hype has disks on PCI and
# the rest on MMIO, hypemmio and hypepci have all of it there. SCENARIO
# is quiet, serial, disks (quiet with two disks), requests (the same, with the
# init that drives the first of them) or traffic (quiet with a network card, and the
# init that uses it).

# QEMU gets what serves it best of what it has: option ROMs, timer chip, 8259s
# and second I/O APIC off, for the guest does without; the CMOS clock on, for
# without one Linux asks for the time in vain for a second; all interrupt
# controllers in the kernel (by default the I/O APIC is not: 230 user exits); a
# console of one port (31 are the default: 350 exits more). Its firmware is
# qboot. ACPI stays on, as it is in hype: off, QEMU is 2 % faster.
microvm=microvm,accel=kvm,${BENCH_MICROVM:-x-option-roms=off,pit=off,pic=off,rtc=on,ioapic2=off,kernel-irqchip=on}
q35=q35,accel=kvm,kernel-irqchip=on,pit=off,sata=off,smbus=off,hpet=off
# Its disks are like hype's, through the host's page cache, which here has all of
# them, so that a request waits for nothing. A thread of their own and io_uring
# serve 4 KiB reads one by one best: aio=threads, the default, takes 16 % longer for 4 KiB reads one
# by one, and 37 % at depth 32; without iothread it is 13 % more and 18 % less.
disk=format=raw,if=none,cache=writeback,${BENCH_QEMU_DRIVE:-aio=io_uring}
device=${BENCH_QEMU_DISK-,iothread=disks}
disks=(/disk.raw /second.raw)
# Cards are on a tap, without the host's kernel as their device (vhost).
tap=bench
tap_address=10.99.0.1/24
memory_mib=512

machine() {
	local vmm=$1 scenario=$2 cmdline
	case $scenario in
	serial) cmdline='console=ttyS0 reboot=t' ;;
	requests) cmdline='console=hvc0 quiet reboot=t rdinit=/disk' ;;
	traffic) cmdline='console=hvc0 quiet reboot=t ipv6.disable=1 sysctl.net.ipv4.tcp_slow_start_after_idle=0 rdinit=/net' ;;
	*) cmdline='console=hvc0 quiet reboot=t' ;;
	esac
	case $vmm in
	hype*) hype "$scenario" ;;
	*) qemu "$scenario" ;;
	esac
}

hype() {
	local path
	argv=(/hype -kernel /bzImage -initrd /initrd.cpio -mem "${memory_mib}M" -cpus 1 -cmdline "$cmdline")
	case $vmm in hypemmio) argv+=(-transport mmio) ;; hypepci) argv+=(-transport pci) ;; esac
	case $1 in
	serial) argv+=(-console off -serial stdio) ;;
	*) argv+=(-console stdio -serial off) ;;
	esac
	case $1 in
	disks | requests) for path in "${disks[@]}"; do argv+=(-block "$path"); done ;;
	traffic) argv+=(-net "tap=$tap") ;;
	esac
}

qemu() {
	local path bus=device rom=
	argv=(/qemu -kernel /bzImage -initrd /initrd.cpio -m "$memory_mib" -smp 1 -cpu host -append "$cmdline"
		-nodefaults -no-user-config -display none -no-reboot -L /firmware)
	case $vmm-$1 in
	q35-*)
		argv+=(-M "$q35" -bios qboot.rom)
		bus=pci rom=,romfile=
		;;
	*-serial) argv+=(-M "$microvm,isa-serial=on") ;;
	*) argv+=(-M "$microvm,isa-serial=off") ;;
	esac
	case $1 in
	serial) argv+=(-serial stdio) ;;
	*) argv+=(-chardev stdio,id=console -device "virtio-serial-$bus,max_ports=1" -device virtconsole,chardev=console) ;;
	esac
	case $1 in
	disks | requests)
		argv+=(-global virtio-mmio.force-legacy=false -object iothread,id=disks)
		for path in "${disks[@]}"; do
			argv+=(-drive "file=$path,id=${path//[\/.]/},$disk" -device "virtio-blk-$bus,drive=${path//[\/.]/}$device")
		done
		;;
	traffic)
		argv+=(-global virtio-mmio.force-legacy=false -netdev "tap,id=card,ifname=$tap,script=no,downscript=no,vhost=off"
			-device "virtio-net-$bus,netdev=card$rom")
		;;
	esac
}
