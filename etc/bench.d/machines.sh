# shellcheck shell=bash
# shellcheck disable=SC2034,SC2054 # argv is the result; commas within words
# The machines that are compared: the same kernel, initrd, memory and processor,
# one virtio console or one serial port, and nothing else.
#
# To be sourced. machine VMM SCENARIO sets argv, whose file names are those of
# the stage that etc/bench makes.

# QEMU gets what serves it best of what it has: option ROMs, timer chip, 8259s
# and second I/O APIC off, for the guest does without; the CMOS clock on, for
# without one Linux asks for the time in vain for a second; all interrupt
# controllers in the kernel (by default the I/O APIC is not: 230 user exits); a
# console of one port (31 are the default: 350 exits more). Its firmware is
# qboot. ACPI stays on, as it is in hype: off, QEMU is 2 % faster.
microvm=microvm,accel=kvm,${BENCH_MICROVM:-x-option-roms=off,pit=off,pic=off,rtc=on,ioapic2=off,kernel-irqchip=on}
memory_mib=512

machine() {
	local vmm=$1 scenario=$2 cmdline
	case $scenario in
	quiet) cmdline='console=hvc0 quiet reboot=t' ;;
	serial) cmdline='console=ttyS0 reboot=t' ;;
	esac
	case $vmm in
	hype)
		argv=(/hype -kernel /bzImage -initrd /initrd.cpio -mem "${memory_mib}M" -cpus 1 -cmdline "$cmdline")
		case $scenario in
		quiet) argv+=(-console stdio -serial off) ;;
		serial) argv+=(-console off -serial stdio) ;;
		esac
		;;
	qemu)
		argv=(/qemu -kernel /bzImage -initrd /initrd.cpio -m "$memory_mib" -smp 1 -cpu host -append "$cmdline"
			-nodefaults -no-user-config -display none -no-reboot -L /firmware)
		case $scenario in
		quiet)
			argv+=(-M "$microvm,isa-serial=off" -chardev stdio,id=console
				-device virtio-serial-device,max_ports=1 -device virtconsole,chardev=console)
			;;
		serial) argv+=(-M "$microvm,isa-serial=on" -serial stdio) ;;
		esac
		;;
	esac
}
