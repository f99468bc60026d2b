/*
 * Another init: drives the first disk, one kind of request after the other.
 *
 * O_DIRECT, so that each request is one of the device's; by Linux's AIO, which
 * takes up to 32 of them at once. The buffers are ordinary pages, as those of
 * most programs are.
 */
#include "series.h"

enum { OPEN = 2, MKDIR = 83, MOUNT = 165, IO_SETUP = 206, IO_GETEVENTS = 208, IO_SUBMIT = 209 };
enum { O_RDWR = 2, O_DIRECT = 040000 };
enum { PREAD, PWRITE };
enum { DEPTH = 32, DISK = 64 * MIB };

/* The kinds; series.awk knows their order and numbers. */
static const struct kind {
	unsigned short opcode;
	int random, depth, count;
	long size;
} kinds[] = {
	{ PREAD, 0, 1, 32, MIB },
	{ PWRITE, 0, 1, 32, MIB },
	{ PREAD, 1, 1, 256, 4 * KIB },
	{ PREAD, 1, DEPTH, 1024, 4 * KIB },
};

/* As in linux/aio_abi.h. */
struct iocb {
	unsigned long data;
	unsigned key, rw_flags;
	unsigned short opcode;
	short priority;
	unsigned fd;
	unsigned long buffer, size, offset, reserved;
	unsigned flags, resfd;
};
struct io_event {
	unsigned long data, iocb;
	long result, result2;
};

static char buffers[MIB] __attribute__((aligned(4096)));
static struct iocb iocbs[DEPTH];
static struct iocb *list[DEPTH];
static struct io_event events[DEPTH];
static unsigned long context;
static long disk;

/* Makes an iocb the next request of its kind. */
static void next(const struct kind *kind, struct iocb *iocb)
{
	static unsigned long sequential, seed = 1;

	iocb->opcode = kind->opcode;
	iocb->fd = disk;
	iocb->size = kind->size;
	if (kind->random) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		iocb->offset = (seed >> 33) % (DISK / kind->size) * kind->size;
	} else {
		sequential = (sequential + kind->size) % DISK;
		iocb->offset = sequential;
	}
}

static void run(int number)
{
	const struct kind *kind = &kinds[number];
	int sent, done = 0, i;
	long n;

	for (i = 0; i < kind->depth; i++) {
		next(kind, list[i] = &iocbs[i]);
		iocbs[i].buffer = (unsigned long)buffers + i * kind->size;
	}
	sent = n = kind->depth;
	for (;;) {
		if (n && call(IO_SUBMIT, context, n, (long)list, 0, 0) != n)
			FAIL("disk: io_submit failed");
		if (done == kind->count)
			return;
		n = call(IO_GETEVENTS, context, 1, DEPTH, (long)events, 0);
		if (n < 1)
			FAIL("disk: io_getevents failed");
		done += n;
		for (i = 0; i < n; i++) {
			if (events[i].result != kind->size)
				FAIL("disk: a request failed");
			list[i] = (struct iocb *)events[i].iocb;
		}
		/* Those that would be too many are not sent again. */
		if (n > kind->count - sent)
			n = kind->count - sent;
		sent += n;
		for (i = 0; i < n; i++)
			next(kind, list[i]);
	}
}

void _start(void)
{
	unsigned i;

	call(MKDIR, (long)"/dev", 0755, 0, 0, 0);
	call(MOUNT, (long)"dev", (long)"/dev", (long)"devtmpfs", 0, 0);
	disk = call(OPEN, (long)"/dev/vda", O_RDWR | O_DIRECT, 0, 0, 0);
	if (disk < 0)
		FAIL("disk: cannot open /dev/vda");
	if (call(IO_SETUP, DEPTH, (long)&context, 0, 0, 0))
		FAIL("disk: io_setup failed");
	/* Each page has memory of its own before the first read. */
	for (i = 0; i < sizeof buffers; i += 4096)
		buffers[i] = 1;
	rounds(run, sizeof kinds / sizeof *kinds);
}
