# The series' part of report.awk, which calls these functions: what each kind of
# thing that disk.c and net.c do costs, for all machines side by side.

# Kinds by scenario and number: what one is called, how many a series has, of what,
# and how large they are, if that is of interest.
function kinds_of_series() {
	machines = split("hype hypemmio qemu q35", machine, " ")
	new_kind("requests", "1 MiB reads, one after the other", 32, "request", 1)
	new_kind("requests", "1 MiB writes, one after the other", 32, "request", 1)
	new_kind("requests", "4 KiB random reads, depth 1", 256, "request")
	new_kind("requests", "4 KiB random reads, depth 32", 1024, "request")
	new_kind("traffic", "TCP stream from the guest", 16, "MiB", 1)
	new_kind("traffic", "TCP stream to the guest", 16, "MiB", 1)
	new_kind("traffic", "TCP, one byte there and back", 256, "round trip")
	new_kind("traffic", "UDP from the guest, frames of 64 bytes", 1024, "frame")
	new_kind("traffic", "UDP to the guest, frames of 64 bytes", 1024, "frame")
}
function new_kind(scenario, name, count, each, mib, k) {
	k = scenario kinds[scenario]++
	kind_name[k] = name
	in_series[k] = count
	kind_each[k] = each
	kind_mib[k] = mib
}

# A mark's line: the last digit of its number is the kind.
function series_time(scenario, vmm, i, now, number, at) {
	for (i = 1; i <= NF; i++) {
		if ($i ~ /^[0-9]+\.[0-9]+:$/) now = $i + 0
		if ($i == "func" || $i == "nr") { number = $(i + 1); break }
	}
	i = substr(number, length(number))
	if ($0 ~ /kvm_cpuid:/) { began[i] = now; return }
	# The first series of each kind finds nothing warm.
	at = scenario i SUBSEP vmm
	if (!warm[at]) { warm[at] = 1; return }
	boots[at]++
	sample[at, "series", boots[at]] = (now - began[i]) * 1000000
}

# Microseconds of one of a kind, or 0.
function one(k, vmm) { return median(k SUBSEP vmm, "series") / in_series[k] }

# Rows of a table with a column for each machine: cells[i] is machine i's, if it has one.
function across_head(title, i) {
	printf "\n%-46.46s", title
	for (i = 1; i <= machines; i++) printf " %9s", column_name[machine[i]]
	print ""
}
function across(label, format, cells, i) {
	printf "  %-44s", label
	for (i = 1; i <= machines; i++) printf " %9s", cells[i] == "" ? "-" : sprintf(format, cells[i])
	print ""
}
function across_values(label, format, scenario, key, i, cells) {
	for (i = 1; i <= machines; i++)
		cells[i] = (scenario, machine[i], key) in value ? value[scenario, machine[i], key] : ""
	across(label, format, cells)
}

function series_report(n) {
	column_name["hype"] = "hype"; column_name["hypemmio"] = "on MMIO"; column_name["hypepci"] = "on PCI"
	column_name["qemu"] = "microvm"; column_name["q35"] = "q35"
	machines = split("hype hypemmio hypepci qemu q35", machine, " ")
	across_head("quiet boot with two disks")
	across_values("ms from exec to init's line", "%.1f", "disks", "init")
	across_values("ms from exec to the first KVM_RUN", "%.1f", "disks", "entry")
	across_values("host calls before the first KVM_RUN", "%d", "disks", "calls")
	across_values("user exits", "%d", "disks", "user")
	kinds_of_series()
	for (n = 0; n < kinds["requests"]; n++) kind_report("requests" n)
	for (n = 0; n < kinds["traffic"]; n++) kind_report("traffic" n)
}
function kind_report(k, i, m, us, rate, user, data, waits, raises) {
	for (i = 1; i <= machines; i++) {
		m = k SUBSEP machine[i]
		us[i] = rate[i] = user[i] = data[i] = waits[i] = raises[i] = ""
		if (!one(k, machine[i])) continue
		us[i] = one(k, machine[i])
		rate[i] = 1000000 / us[i]
		user[i] = value[m, "user"] / in_series[k]
		waits[i] = waiting(m) / in_series[k]
		raises[i] = raising(m) / in_series[k]
		data[i] = besides(k, machine[i])
	}
	across_head(kind_name[k])
	across("us of a " kind_each[k], "%.1f", us)
	across(kind_mib[k] ? "MiB/s" : "a second", "%d", rate)
	across("user exits", "%.2f", user)
	across("host calls: for data and else", "%.2f", data)
	across("  to wait", "%.2f", waits)
	across("  write(2): interrupts and wake-ups", "%.2f", raises)
}

function waiting(m) { return calls[m, "epoll_pwait"] + calls[m, "epoll_wait"] + calls[m, "ppoll"] + calls[m, "restart_syscall"] }
function raising(m) { return calls[m, "write"] + 0 }
# Host calls of one that neither wait nor interrupt; a KVM_RUN is the other half of
# a user exit.
function besides(k, vmm, m) {
	m = k SUBSEP vmm
	return (value[m, "calls"] - waiting(m) - raising(m) - value[m, "user"]) / in_series[k]
}

# Of both transports, those in which disks and cards are.
function series_budgets(missed, i, where) {
	missed += budget("user exits of a quiet boot with two disks", "%d", value["disks", "hype", "user"], 250)
	missed += budget("  all on PCI", "%d", value["disks", "hypepci", "user"], 250)
	for (i = 1; i <= 2; i++) {
		where = i == 1 ? "PCI" : "MMIO"
		# That an interrupt on MMIO is asked for its cause is all that leaves the kernel.
		missed += exits_of("4 KiB read", "requests2", machine[i], where, i == 1 ? 0.02 : 1.02)
		missed += budget("calls of one besides wait, interrupt, " where, "%.2f", one("requests2", machine[i]) ? besides("requests2", machine[i]) : 0, 1.01)
		missed += faster("4 KiB reads, depth 1, " where, "requests2", machine[i], 2)
		missed += faster("4 KiB reads, depth 32, " where, "requests3", machine[i], 2)
		missed += faster("1 MiB reads, " where, "requests0", machine[i], 1.3)
		missed += exits_of("round trip", "traffic2", machine[i], where, i == 1 ? 0.02 : 2.02)
		missed += faster("round trips, " where, "traffic2", machine[i], 2)
		missed += faster("MiB from the guest, " where, "traffic0", machine[i], 1)
		missed += faster("MiB to the guest, " where, "traffic1", machine[i], 1)
	}
	return missed
}
function exits_of(what, k, vmm, where, limit) {
	if (!one(k, vmm)) return budget("user exits of a " what ", " where, "%.2f", 0, limit)
	return budget("user exits of a " what ", " where, "%.2f", value[k, vmm, "user"] / in_series[k], limit, 1)
}
# Microseconds that allow to be so many times as fast as microvm.
function faster(label, k, vmm, times) {
	return budget("us of " label, "%.1f", one(k, vmm), one(k, "qemu") / times)
}
