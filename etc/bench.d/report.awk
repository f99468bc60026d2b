# The tables of `make bench`, from the files that measure and native have left:
#
#   awk -f series.awk -f report.awk RESULTS/*-*.* RESULTS/native
#
# Exits 1 if a budget is not met. For mawk, too, which knows no hexadecimal.

BEGIN {
	MIB = 1024 * 1024
	REASON_IO = 2
	REASON_MMIO = 6
	# First port, last port, name. The first that fits counts.
	ports("20 21 interrupt controllers|a0 a1 interrupt controllers|4d0 4d1 interrupt controllers")
	ports("40 43 timer|61 61 timer|60 60 keyboard controller|64 64 keyboard controller")
	ports("70 71 CMOS clock, 0x70|80 8f delays and DMA pages, 0x80|f0 f1 coprocessor, 0xf0")
	ports("2e8 2ef COM2 to COM4|2f8 2ff COM2 to COM4|3e8 3ef COM2 to COM4|3f8 3ff COM1, 0x3f8")
	ports("3b0 3df VGA, 0x3b0|505 505 pvpanic, 0x505|510 51b fw_cfg, 0x510|600 60f power management, 0x600")
	ports("cf8 cff PCI configuration, 0xcf8")
}

function ports(list, each, words, n, i) {
	n = split(list, each, "|")
	for (i = 1; i <= n; i++) {
		split(each[i], words, " ")
		first_port[++ranges] = hex(words[1])
		last_port[ranges] = hex(words[2])
		port_name[ranges] = substr(each[i], length(words[1] words[2]) + 3)
	}
}
function hex(text, i, value) {
	for (i = 1; i <= length(text); i++)
		value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
	return value
}

FNR == 1 {
	at = FILENAME
	sub(/.*\//, "", at)
	kind = at
	sub(/.*\./, "", kind)
	sub(/\..*/, "", at)
	split(at, names, "-")
	# VMM, then scenario: the other way round it is the column of a table.
	at = names[2] SUBSEP names[1]
	event = ""
}

kind == "native" { value["native", $1, $2] = $3; next }

kind == "times" && (names[2] == "requests" || names[2] == "traffic") { series_time(names[2], names[1]); next }

# Several boots, each from exec to the mark.
kind == "times" {
	for (i = 1; i <= NF; i++)
		if ($i ~ /^[0-9]+\.[0-9]+:$/) { now = $i + 0; what = $(i + 1) }
	if (what == "sched_process_exec:") { start = now; entry = 0 }
	if (what == "kvm_entry:" && !entry) entry = now
	if (what == "kvm_cpuid:") {
		boots[at]++
		sample[at, "init", boots[at]] = (now - start) * 1000
		sample[at, "entry", boots[at]] = (entry - start) * 1000
	}
	next
}
kind == "memory" { value[at, $1] = $2; next }
kind == "output" { value[at, "characters"] += length($0) + 1; value[at, "lines"]++; next }

/^== / { event = $2; next }
!/^\{.*hitcount/ { next }
{ gsub(/[{},:]/, " ") }
event == "synthetic/hype_user_exit" { user_exit($2, $4, $6, $NF); next }
event == "kvm/kvm_exit" { if ($1 == "exit_reason") value[at, "exits"] += $4; next }
event == "kvm/kvm_page_fault" { value[at, "faults"] += $4; next }
event == "raw_syscalls/sys_enter" {
	sub(/\[.*\]/, "")
	name = substr($2, 5)
	calls[at, name] += $4
	call_total[name] += $4
	value[at, "calls"] += $4
	next
}
# The descriptor that most bytes go to is the console's.
event == "syscalls/sys_enter_write" { if ($6 > most_bytes[at]) { most_bytes[at] = $6; value[at, "writes"] = $4 }; next }
event == "syscalls/sys_enter_writev" { if ($4 > value[at, "writes"]) value[at, "writes"] = $4; next }

function user_exit(reason, info1, info2, count, device) {
	value[at, "user"] += count
	if (reason == REASON_IO)
		device = io_device(hex(substr(info1, 1, length(info1) - 4)))
	else if (reason == REASON_MMIO)
		device = mmio_device(hex(info2))
	else
		device = "KVM exit reason " reason
	exits[at, device] += count
	exit_total[substr(at, 1, index(at, SUBSEP) - 1), device] += count
	devices[device]
}
function io_device(port, i) {
	for (i = 1; i <= ranges; i++)
		if (port >= first_port[i] && port <= last_port[i]) return port_name[i]
	return sprintf("port 0x%x", port)
}
# hype's virtio windows have 4 KiB and begin at 0xd0000000; microvm's have 512
# bytes and begin at 0xfeb00000.
function mmio_device(address, offset) {
	if (address >= hex("d0000000") && address < hex("d0100000")) offset = address % 4096
	else if (address >= hex("feb00000") && address < hex("feb03000")) offset = address % 512
	else if (address >= hex("fec00000") && address < hex("fec01000")) return "I/O APIC"
	else if (address >= hex("fee00000") && address < hex("fee01000")) return "local APIC"
	else return sprintf("memory 0x%x", address)
	if (offset == hex("50")) return "virtio queue notify"
	return "virtio registers"
}

# The middle one of a few.
function median(at, key, i, j, below, same) {
	for (i = 1; i <= boots[at]; i++) {
		below = same = 0
		for (j = 1; j <= boots[at]; j++) {
			below += sample[at, key, j] < sample[at, key, i]
			same += sample[at, key, j] == sample[at, key, i]
		}
		if (below <= (boots[at] - 1) / 2 && below + same > (boots[at] - 1) / 2) return sample[at, key, i]
	}
}

END {
	for (at in boots) {
		value[at, "init"] = median(at, "init")
		value[at, "entry"] = median(at, "entry")
	}
	if (measured("quiet")) {
		head("quiet boot: console=hvc0 quiet reboot=t")
		times("quiet")
		counted("quiet")
	}
	if (measured("serial")) {
		head("verbose boot: console=ttyS0 reboot=t")
		times("serial")
		counted("serial")
		row("characters to the port", "%d", "serial", "characters")
		row("lines", "%d", "serial", "lines")
		row("write(2) calls for them", "%d", "serial", "writes")
	}
	if (("native", "hype", "calls") in value) {
		head("this machine's own KVM, exec to first KVM_RUN")
		row("host calls", "%d", "native", "calls")
		row("milliseconds (strace stops the ioctls)", "%.1f", "native", "milliseconds")
	}
	common_calls()
	series_report()
	exit budgets()
}

function head(title) { printf "\n%-46.46s %10s %10s %10s\n", title, "hype", "QEMU", "hype/QEMU" }
function line(label, format, a, b) {
	printf "  %-44s %10s %10s %10s\n", label, sprintf(format, a), sprintf(format, b), b ? sprintf("%.2f", a / b) : "-"
}
function row(label, format, scenario, key) {
	line(label, format, value[scenario, "hype", key], value[scenario, "qemu", key])
}
function measured(scenario) { return (scenario, "hype", "user") in value || (scenario, "qemu", "user") in value }
function times(scenario) {
	row("ms from exec to init's line", "%.1f", scenario, "init")
	row("ms from exec to the first KVM_RUN", "%.1f", scenario, "entry")
}
function counted(scenario, device, best, i) {
	row("host calls before the first KVM_RUN", "%d", scenario, "calls")
	row("user exits", "%d", scenario, "user")
	while ((best = biggest(scenario)) != "") {
		line("  " best, "%d", exits[scenario, "hype", best], exits[scenario, "qemu", best])
		delete exit_total[scenario, best]
	}
	row("exits in all, most end in the kernel", "%d", scenario, "exits")
	row("page faults that KVM took on guest memory", "%d", scenario, "faults")
	row("KiB of the VMM itself (RSS)", "%d", scenario, "rss")
	row("KiB of it that are private", "%d", scenario, "private")
	row("KiB of guest memory touched", "%d", scenario, "guest")
	row("KiB of it in huge pages", "%d", scenario, "huge")
	row("threads at init", "%d", scenario, "threads")
}
# The device of a scenario with most exits among those not printed yet: hype's
# count more.
function biggest(scenario, device, count, most, best) {
	for (device in devices) {
		if (!((scenario, device) in exit_total)) continue
		count = exits[scenario, "hype", device] * MIB + exits[scenario, "qemu", device]
		if (count > most) { most = count; best = device }
	}
	return best
}
function common_calls(name, most, best, n) {
	head("the host calls of the quiet boot")
	for (n = 0; n < 16; n++) {
		most = 0
		for (name in call_total)
			if (calls["quiet", "hype", name] * 1000 + calls["quiet", "qemu", name] > most) {
				most = calls["quiet", "hype", name] * 1000 + calls["quiet", "qemu", name]
				best = name
			}
		if (!most) break
		line(best, "%d", calls["quiet", "hype", best], calls["quiet", "qemu", best])
		delete call_total[best]
	}
}

# What was not measured is not met.
function budgets(missed) {
	printf "\n%-46s %10s %10s\n", "budgets", "hype", "at most"
	missed += budget("user exits of a quiet boot", "%d", value["quiet", "hype", "user"], 200)
	missed += budget("page faults that KVM took", "%d", value["quiet", "hype", "faults"], 99)
	missed += budget("host calls before the first KVM_RUN", "%d", value["quiet", "hype", "calls"], 120)
	missed += budget("ms to init, less than QEMU's", "%.1f", value["quiet", "hype", "init"], value["quiet", "qemu", "init"])
	missed += budget("serial port: user exits per character", "%.2f",
		ratio(exits["serial", "hype", "COM1, 0x3f8"], value["serial", "hype", "characters"]), 0.5)
	missed += budget("serial port: writes per line", "%.2f",
		ratio(value["serial", "hype", "writes"], value["serial", "hype", "lines"]), 1)
	if (value["quiet", "hype", "user"])
		missed += budget("user exits for a queue notify", "%d", exits["quiet", "hype", "virtio queue notify"], 0, 1)
	return missed + series_budgets() > 0
}
function ratio(a, b) { return b ? a / b : 0 }
function budget(label, format, is, limit, may_be_none, verdict) {
	verdict = is > limit ? "NOT MET" : is || may_be_none ? "met" : "NOT MEASURED"
	printf "  %-44s %10s %10s  %s\n", label, sprintf(format, is), sprintf(format, limit), verdict
	return verdict != "met"
}
