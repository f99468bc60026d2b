# shellcheck shell=bash
# shellcheck disable=SC2154 # what measure, machines.sh and trace.sh have set
# How fast a disk is: time, user exits and host calls of each kind of request
# that the guest's disk.c makes, over and over.
#
# To be sourced by measure. disk VMM boots one machine and leaves
#
#   RESULTS/VMM-requests.times     where in time each kind began and ended
#   RESULTS/VMM-requestsN.counts   what one series of kind N caused
#
# Times are of series that nothing counts.

kinds=4
series=3

# await MARK [TIMES]: reads marks, and keeps them, until this one came as often
await() {
	local line count=0
	while [ "$count" -lt "${2:-1}" ]; do
		read -r -t 5 line <&7 || return 1
		printf '%s\n' "$line" >>"$work/times"
		case $line in
		*"$failed_mark "*) return 1 ;;
		*"$1 "*) count=$((count + 1)) ;;
		esac
	done
}

# What each kind makes machines do; nothing happens while counters are set up
# and read.
count_kinds() {
	local kind
	for ((kind = 0; kind < kinds; kind++)); do
		kill -STOP "$2"
		unwatch
		watch_requests
		count_requests "$kind"
		kill -CONT "$2"
		await "$begin_mark$kind" && await "$end_mark$kind" || return 1
		kill -STOP "$2"
		counts >"$results/$1-requests$kind.counts"
		kill -CONT "$2"
	done
}

disk() {
	local vmm=$1 pid ok=
	machine "$vmm" requests
	watch_requests
	: >"$work/times"
	exec 7<"$tracing/trace_pipe"
	(
		echo "$BASHPID" >"$tracing/set_event_pid"
		exec chroot "$stage" "${argv[@]}" <&9 9<&- 7<&- >"$work/output" 2>"$work/errors"
	) &
	pid=$!
	# The first series finds nothing warm; the report leaves it out.
	if await "$end_mark$((kinds - 1))" $((series + 1)); then
		cp "$work/times" "$results/$vmm-requests.times"
		! count_kinds "$vmm" "$pid" || ok=1
	fi
	kill -KILL "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
	unwatch
	exec 7<&-
	: >"$tracing/set_event_pid"
	[ -n "$ok" ] || {
		echo "$vmm: the guest's requests ended early:" >&2
		tail -n 5 "$work/output" "$work/errors" >&2
		return 1
	}
	echo "$vmm: requests" >&2
}
