# shellcheck shell=bash
# shellcheck disable=SC2154 # what measure, machines.sh and trace.sh have set
# What a guest's devices cost at work: time, user exits and host calls of each
# kind of thing that the guest's disk.c or net.c does, in series, over and over.
#
# To be sourced by measure. series VMM requests|traffic boots one machine and leaves
#
#   OUT/VMM-SCENARIO.times      where in time each series began and ended
#   OUT/VMM-SCENARION.counts    what one series of kind N caused
#
# Times are of series that nothing counts.

declare -A kinds=([requests]=4 [traffic]=5)
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

# count_kinds NAME LAST PID: what each kind makes a machine do that is stopped.
# Counters are set up and read at the end of a round, when nothing is in flight.
count_kinds() {
	local kind
	for ((kind = 0; kind <= $2; kind++)); do
		unwatch
		watch_series
		count_series "$kind" "$peer"
		kill -CONT "$3"
		await "$begin_mark$kind" && await "$end_mark$2" || return 1
		kill -STOP "$3"
		counts >"$out/$1$kind.counts"
	done
}

# A tap that is new, and the program at its other end.
start_peer() {
	busybox tunctl -t "$tap" >/dev/null
	busybox ip addr add "$tap_address" dev "$tap"
	busybox ip link set "$tap" up
	# Neither side forgets between two series how fast the other is.
	echo 0 >/proc/sys/net/ipv4/tcp_slow_start_after_idle
	mkfifo "$work/ready"
	"$stage/peer" >"$work/ready" 2>"$work/peer" 9<&- &
	peer=$!
	read -r -t 5 _ <"$work/ready"
	rm "$work/ready"
}
stop_peer() {
	kill "$peer" 2>/dev/null || :
	wait "$peer" 2>/dev/null || :
	busybox tunctl -d "$tap" >/dev/null || :
}

series() {
	local vmm=$1 name=$1-$2 last=$((kinds[$2] - 1)) pid ok='' peer=0
	machine "$vmm" "$2"
	: >"$work/peer"
	[ "$2" = requests ] || start_peer
	watch_series
	: >"$work/times"
	exec 7<"$tracing/trace_pipe"
	(
		echo "$BASHPID" >"$tracing/set_event_pid"
		exec chroot "$stage" "${argv[@]}" <&9 9<&- 7<&- >"$work/output" 2>"$work/errors"
	) &
	pid=$!
	# The first series finds nothing warm; the report leaves it out.
	if await "$end_mark$last" $((series + 1)); then
		# At once: only in this moment there is nothing in flight.
		kill -STOP "$pid"
		cp "$work/times" "$out/$name.times"
		! count_kinds "$name" "$last" "$pid" || ok=1
	fi
	kill -KILL "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
	unwatch
	exec 7<&-
	: >"$tracing/set_event_pid"
	[ "$peer" = 0 ] || stop_peer
	[ -n "$ok" ] || {
		echo "$name: the guest's work ended early:" >&2
		tail -n 5 "$work/output" "$work/errors" "$work/peer" >&2
		return 1
	}
}
