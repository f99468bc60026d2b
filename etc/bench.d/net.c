/*
 * Another init: one kind of traffic after the other with peer.c on the host, over
 * the guest's network card.
 */
#include "series.h"
#include "net.h"

enum { SIOCSIFFLAGS = 0x8914, SIOCSIFADDR = 0x8916, SIOCSIFNETMASK = 0x891c, IFF_UP = 1 };

static int stream, packets;

static void set_up(void)
{
	static struct {
		char name[16];
		union {
			struct address address;
			short flags;
			char size[24];
		};
	} card = { .name = "eth0" };

	card.address = guest;
	if (call(IOCTL, packets, SIOCSIFADDR, (long)&card, 0, 0))
		FAIL("net: there is no eth0");
	card.address = (struct address){ AF_INET, 0, { 255, 255, 255, 0 }, { 0 } };
	call(IOCTL, packets, SIOCSIFNETMASK, (long)&card, 0, 0);
	card.flags = IFF_UP;
	if (call(IOCTL, packets, SIOCSIFFLAGS, (long)&card, 0, 0))
		FAIL("net: eth0 does not come up");
}

static void run(int kind)
{
	int i;

	buffer[0] = kind;
	send(stream, 1);
	switch (kind) {
	case STREAM_OUT:
		send(stream, STREAM);
		receive(stream, 1);
		break;
	case STREAM_IN:
		receive(stream, STREAM);
		break;
	case ROUND_TRIPS:
		for (i = 0; i < TRIPS; i++) {
			send(stream, 1);
			receive(stream, 1);
		}
		break;
	case PACKETS_OUT:
		for (i = 0; i < PACKETS; i++)
			send(packets, PAYLOAD);
		receive(stream, 1);
		break;
	case PACKETS_IN:
		for (i = 1; i <= PACKETS; i++) {
			receive(packets, PAYLOAD);
			if (i % ACK == 0)
				send(packets, PAYLOAD);
		}
		break;
	}
}

void _start(void)
{
	packets = open_socket(SOCK_DGRAM);
	set_up();
	stream = open_socket(SOCK_STREAM);
	call(BIND, packets, (long)&anywhere, sizeof anywhere, 0, 0);
	if (call(CONNECT, packets, (long)&host, sizeof host, 0, 0) ||
	    call(CONNECT, stream, (long)&host, sizeof host, 0, 0))
		FAIL("net: the host can't be reached");
	rounds(run, KINDS);
}
