/*
 * The guest's init: says one line, tells the host that it has, and resets.
 *
 * It needs no C library and nothing of the initrd but itself. The nap leaves the
 * host time to stop a VMM that still lives, and to look at its memory.
 */
#include "call.h"

enum { TCSBRK = 0x5409, RESTART = 0x1234567 };
enum { MARK = 0x40001337 };

void _start(void)
{
	static const char line[] = "init: the first line\n";
	static const struct { long s, ns; } nap = { 0, 200000000 };

	call(WRITE, 1, (long)line, sizeof line - 1, 0, 0);
	/* With an argument it sends no break, but waits until all is sent. */
	call(IOCTL, 1, TCSBRK, 1, 0, 0);
	mark(MARK);
	call(NANOSLEEP, (long)&nap, 0, 0, 0, 0);
	call(REBOOT, 0xfee1deadL, 672274793, RESTART, 0, 0);
	for (;;)
		;
}
