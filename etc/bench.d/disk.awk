# The disks' part of report.awk, which calls these functions: what each kind of
# request of disk.c costs, for all four machines side by side.

# Kinds by number: what one is called, how many requests a series has, their KiB.
function kinds_of_requests() {
	machines = split("hype hypemmio qemu q35", machine, " ")
	kind_name[0] = "1 MiB reads, one after the other"; series[0] = 32; kib[0] = 1024
	kind_name[1] = "1 MiB writes, one after the other"; series[1] = 32; kib[1] = 1024
	kind_name[2] = "4 KiB random reads, depth 1"; series[2] = 256; kib[2] = 4
	kind_name[3] = "4 KiB random reads, depth 32"; series[3] = 1024; kib[3] = 4
	kinds = 4
}

# A mark's line: the last digit of its number is the kind.
function request_time(vmm, i, now, number) {
	for (i = 1; i <= NF; i++) {
		if ($i ~ /^[0-9]+\.[0-9]+:$/) now = $i + 0
		if ($i == "func" || $i == "nr") { number = $(i + 1); break }
	}
	i = substr(number, length(number))
	if ($0 ~ /kvm_cpuid:/) { began[i] = now; return }
	# The first series of each kind finds nothing warm.
	vmm = "requests" i SUBSEP vmm
	if (!warm[vmm]) { warm[vmm] = 1; return }
	boots[vmm]++
	sample[vmm, "request", boots[vmm]] = (now - began[i]) * 1000000
}

# Microseconds of a request, or 0.
function request(kind, vmm) { return median("requests" kind SUBSEP vmm, "request") / series[kind] }

function four(label, format, a, b, c, d) {
	printf "  %-38s", label
	cell(format, a); cell(format, b); cell(format, c); cell(format, d)
	print ""
}
function cell(format, value) { printf " %8s", value == "" ? "-" : sprintf(format, value) }
function four_head(title) { printf "\n%-40.40s %8s %9s %8s %8s\n", title, "hype", "hype MMIO", "microvm", "q35" }

function disks_report(k, i, m, at, us, rate, user, waits, raises, others) {
	kinds_of_requests()
	four_head("quiet boot with two disks")
	for (i = 1; i <= machines; i++) user[i] = value["disks", machine[i], "user"]
	four("user exits", "%d", user[1], user[2], user[3], user[4])
	for (k = 0; k < kinds; k++) {
		four_head(kind_name[k])
		for (i = 1; i <= machines; i++) {
			m = "requests" k SUBSEP machine[i]
			us[i] = request(k, machine[i])
			if (!us[i]) { us[i] = rate[i] = user[i] = waits[i] = raises[i] = others[i] = ""; continue }
			rate[i] = kib[k] == 4 ? 1000000 / us[i] : kib[k] / 1024 * 1000000 / us[i]
			user[i] = value[m, "user"] / series[k]
			waits[i] = waiting(m) / series[k]
			raises[i] = (calls[m, "write"] + 0) / series[k]
			others[i] = besides(k, machine[i])
		}
		four("us", "%.1f", us[1], us[2], us[3], us[4])
		four(kib[k] == 4 ? "a second" : "MiB/s", "%d", rate[1], rate[2], rate[3], rate[4])
		four("user exits of each", "%.2f", user[1], user[2], user[3], user[4])
		four("host calls of each: for data and else", "%.2f", others[1], others[2], others[3], others[4])
		four("  to wait", "%.2f", waits[1], waits[2], waits[3], waits[4])
		four("  write(2): interrupts and wake-ups", "%.2f", raises[1], raises[2], raises[3], raises[4])
	}
}

function waiting(m) { return calls[m, "epoll_pwait"] + calls[m, "epoll_wait"] + calls[m, "ppoll"] + calls[m, "restart_syscall"] }
# Host calls of a request that neither wait nor interrupt; a KVM_RUN is the other
# half of a user exit.
function besides(kind, vmm, m) {
	m = "requests" kind SUBSEP vmm
	return (value[m, "calls"] - waiting(m) - calls[m, "write"] - value[m, "user"]) / series[kind]
}

function disk_budgets(missed, i, name) {
	missed += budget("user exits of a quiet boot with two disks", "%d", value["disks", "hype", "user"], 250)
	for (i = 1; i <= 2; i++) {
		name = i == 1 ? "PCI" : "MMIO"
		# That an interrupt on MMIO is asked for its cause is all that leaves the kernel.
		if (request(2, machine[i]))
			missed += budget("user exits of a 4 KiB read, " name, "%.2f", value["requests2", machine[i], "user"] / series[2], i == 1 ? 0.02 : 1.02, 1)
		missed += budget("calls of one besides wait, interrupt, " name, "%.2f", request(2, machine[i]) ? besides(2, machine[i]) : 0, 1.01)
		missed += faster("4 KiB reads, depth 1, " name, 2, machine[i], 2)
		missed += faster("4 KiB reads, depth 32, " name, 3, machine[i], 2)
		missed += faster("1 MiB reads, " name, 0, machine[i], 1.3)
	}
	return missed
}
# Microseconds that allow to be so many times as fast as microvm.
function faster(label, kind, vmm, times) {
	return budget("us of " label, "%.1f", request(kind, vmm), request(kind, "qemu") / times)
}
