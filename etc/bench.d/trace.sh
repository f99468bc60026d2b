# shellcheck shell=bash
# The kernel's own tracing, by its files alone. Counting is done by histogram
# triggers: an event costs some hundred instructions and leaves no record.
#
# To be sourced, by root. watch_counts and watch_times set tracing up for one
# boot of the command named as their argument, watch_series and count_series
# for a guest that runs disk.c or net.c; unwatch takes it down.

tracing=/sys/kernel/tracing
# CPUID's leaf by which the guest's init says that it is there; see init.c.
mark=0x40001337
# Those of series.h, as tracepoints show them; the last digit is the kind.
begin_mark=4000140
end_mark=0x4000150
failed_mark=0x40001510
added=()

# trigger EVENT TRIGGER
trigger() {
	echo "$2" >>"$tracing/events/$1/trigger"
	added+=("$1 $2")
}

# on EVENT [FILTER]: records it
on() {
	echo "${2:-0}" >"$tracing/events/$1/filter"
	echo 1 >"$tracing/events/$1/enable"
}

# The three events that bound the times: exec, the first entry, the mark.
watch_times() {
	local name='filename ~ "*/'$1'"'
	# No entry is of interest after the first exit.
	trigger kvm/kvm_exit disable_event:kvm:kvm_entry:1
	on kvm/kvm_entry
	on kvm/kvm_cpuid "function==$mark"
	on sched/sched_process_exec "$name"
	echo 1 >"$tracing/tracing_on"
}

# User exits by the exit that caused them: kvm_exit leaves its details for
# kvm_userspace_exit of the same thread, which makes an event of both. They are
# those of AMD's manual: for a port, EXITINFO1 has the port and the direction,
# EXITINFO2 the address of the next instruction; for memory, EXITINFO1 is the page
# fault's error code, EXITINFO2 the guest-physical address.
count_user_exits() {
	[ -d "$tracing/events/synthetic/hype_user_exit" ] ||
		echo 'hype_user_exit u32 reason; u64 info1; u64 info2' >>"$tracing/synthetic_events"
	trigger synthetic/hype_user_exit 'hist:keys=reason,info1.hex,info2.hex:size=16384'
	trigger kvm/kvm_exit "hist:keys=exit_reason$1"
	trigger kvm/kvm_exit "hist:keys=common_pid:info1=info1,info2=info2$1"
	# shellcheck disable=SC2016 # the kernel's variables
	trigger kvm/kvm_userspace_exit 'hist:keys=common_pid'"$1"':onmatch(kvm.kvm_exit).hype_user_exit(reason,$info1,$info2)'
}

watch_counts() {
	local name='filename ~ "*/'$1'"' event
	count_user_exits ''
	trigger kvm/kvm_page_fault "hist:keys=error_code.hex if fault_address < $((${memory_mib:?} << 20))"
	trigger syscalls/sys_enter_write 'hist:keys=fd:vals=count:pause'
	trigger syscalls/sys_enter_writev 'hist:keys=fd:pause'
	trigger raw_syscalls/sys_enter 'hist:keys=id.syscall:pause'
	for event in raw_syscalls:sys_enter syscalls:sys_enter_write syscalls:sys_enter_writev; do
		trigger sched/sched_process_exec "enable_hist:$event if $name"
	done
	trigger kvm/kvm_entry disable_hist:raw_syscalls:sys_enter
	for event in kvm:kvm_exit kvm:kvm_userspace_exit kvm:kvm_page_fault syscalls:sys_enter_write syscalls:sys_enter_writev; do
		trigger kvm/kvm_cpuid "disable_hist:$event if function==$mark"
	done
	watch_times "$1"
}

# The marks of series.h: where a series begins, and where it ends.
watch_series() {
	on kvm/kvm_cpuid "function>=$((0x${begin_mark}0)) && function<=$((0x${begin_mark}f))"
	on kvm/kvm_hypercall "nr>=$((${end_mark}0)) && nr<=$((failed_mark))"
	echo 1 >"$tracing/tracing_on"
}

# count_series KIND PEER: from its next begin to its end, without what that process calls
count_series() {
	local event events='kvm:kvm_exit kvm:kvm_userspace_exit raw_syscalls:sys_enter'
	count_user_exits :pause
	trigger raw_syscalls/sys_enter "hist:keys=id.syscall:pause if common_pid != $2"
	for event in $events; do
		trigger kvm/kvm_hypercall "disable_hist:$event if nr==$((${end_mark}0 + $1))"
	done
	for event in $events; do
		trigger kvm/kvm_cpuid "enable_hist:$event if function==$((0x${begin_mark}0 + $1))"
	done
}

# What was counted, as the kernel writes it.
counts() {
	local event
	for event in synthetic/hype_user_exit kvm/kvm_exit kvm/kvm_page_fault raw_syscalls/sys_enter \
		syscalls/sys_enter_write syscalls/sys_enter_writev; do
		echo "== $event"
		cat "$tracing/events/$event/hist"
	done
}

# In reverse, for what refers to an event keeps it.
unwatch() {
	local i event
	echo 0 >"$tracing/tracing_on"
	for event in kvm/kvm_entry kvm/kvm_cpuid kvm/kvm_hypercall sched/sched_process_exec; do
		echo 0 >"$tracing/events/$event/enable"
		echo 0 >"$tracing/events/$event/filter"
	done
	for ((i = ${#added[@]} - 1; i >= 0; i--)); do
		echo "!${added[i]#* }" >>"$tracing/events/${added[i]%% *}/trigger"
	done
	added=()
	: >"$tracing/trace"
}
