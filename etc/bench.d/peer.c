/* The other side of net.c's traffic: a program of the host. It says when it listens, and serves one guest. */
#include "call.h"

enum { EXIT = 60 };

static void fail(const char *why, long length)
{
	call(WRITE, 2, (long)why, length, 0, 0);
	for (;;)
		call(EXIT, 1, 0, 0, 0, 0);
}
#define FAIL(why) fail(why "\n", sizeof why)

#include "net.h"

static void serve(int stream, int packets)
{
	int i, may;

	receive(stream, 1);
	switch (buffer[0]) {
	case STREAM_OUT:
		receive(stream, STREAM);
		send(stream, 1);
		break;
	case STREAM_IN:
		send(stream, STREAM);
		break;
	case ROUND_TRIPS:
		for (i = 0; i < TRIPS; i++) {
			receive(stream, 1);
			send(stream, 1);
		}
		break;
	case PACKETS_OUT:
		for (i = 0; i < PACKETS; i++)
			receive(packets, PAYLOAD);
		send(stream, 1);
		break;
	case PACKETS_IN:
		for (i = 0, may = WINDOW; i < PACKETS; i++, may--) {
			if (!may) {
				receive(packets, PAYLOAD);
				may = ACK;
			}
			send(packets, PAYLOAD);
		}
		/* What is acknowledged after the last packet was sent. */
		for (i = WINDOW / ACK; i; i--)
			receive(packets, PAYLOAD);
		break;
	}
}

void _start(void)
{
	static const char ready[] = "ready\n";
	int listener = open_socket(SOCK_STREAM), packets = open_socket(SOCK_DGRAM), stream;

	if (call(BIND, listener, (long)&anywhere, sizeof anywhere, 0, 0) || call(LISTEN, listener, 1, 0, 0, 0) ||
	    call(BIND, packets, (long)&anywhere, sizeof anywhere, 0, 0) ||
	    call(CONNECT, packets, (long)&guest, sizeof guest, 0, 0))
		FAIL("peer: cannot listen");
	call(WRITE, 1, (long)ready, sizeof ready - 1, 0, 0);
	stream = call(ACCEPT, listener, 0, 0, 0, 0);
	for (;;)
		serve(stream, packets);
}
