/*
 * For programs that do one kind of thing after the other, in series, for as long
 * as they are let: where each series begins and ends is marked, with the number
 * of its kind. After each round there is nothing in flight for a moment, in which
 * the host may stop the guest and set up its counters.
 */
#include "call.h"

/* Marks: with the number of the kind added. FAILED is one more end. */
enum { BEGIN = 0x40001400, END = 0x40001500, FAILED = 0x40001510 };
enum { KIB = 1024, MIB = 1024 * KIB };

/*
 * The end of a kind is marked by a hypercall that no hypervisor knows, and seen by
 * the tracepoint kvm:kvm_hypercall: one tracepoint can't both start and stop the
 * same counter. It is AMD's instruction, which etc/kvm-host has.
 */
static void mark_end(unsigned number)
{
	unsigned long result;

	__asm__ volatile("vmmcall"
			 : "=a"(result)
			 : "a"((unsigned long)number), "b"(0L), "c"(0L), "d"(0L), "S"(0L)
			 : "memory");
}

static void fail(const char *why, long length)
{
	call(WRITE, 1, (long)why, length, 0, 0);
	mark_end(FAILED);
	for (;;)
		;
}
#define FAIL(why) fail(why "\n", sizeof why)

static void rounds(void (*run)(int kind), int kinds)
{
	static const struct { long s, ns; } moment = { 0, 50000000 };
	int kind;

	for (;;) {
		for (kind = 0; kind < kinds; kind++) {
			mark(BEGIN + kind);
			run(kind);
			mark_end(END + kind);
		}
		call(NANOSLEEP, (long)&moment, 0, 0, 0, 0);
	}
}
