/*
 * What net.c, in the guest, and peer.c, on the host, have in common: what they do
 * together, and sockets.
 *
 * The guest connects by TCP and says by one byte which kind is next. Packets go
 * by UDP between the same addresses; of these, the one that receives says when it
 * has had enough.
 */
enum { READ, SOCKET = 41, CONNECT, ACCEPT, BIND = 49, LISTEN, SETSOCKOPT = 54 };
enum { AF_INET = 2, SOCK_STREAM = 1, SOCK_DGRAM };
enum { SOL_SOCKET = 1, SO_REUSEADDR, SO_RCVBUFFORCE = 33, IPPROTO_TCP = 6, TCP_NODELAY = 1 };

/* The kinds; series.awk knows their order and numbers. */
enum { STREAM_OUT, STREAM_IN, ROUND_TRIPS, PACKETS_OUT, PACKETS_IN, KINDS };
enum { STREAM = 16 << 20, TRIPS = 256, PACKETS = 1024 };
/* With the headers and its checksum, the smallest frame that Ethernet has: 64 bytes. */
enum { PAYLOAD = 18 };
/*
 * A tap drops what it has no room for, which is some 500 packets: for each ACK
 * there may be one packet more on the way than the first WINDOW.
 */
enum { WINDOW = 256, ACK = 64 };
enum { PORT = 5000 };

struct address {
	unsigned short family, port;
	unsigned char ip[4];
	char zero[8];
};
/* The port's bytes are in the network's order. */
#define AT(host) { AF_INET, (PORT & 0xff) << 8 | PORT >> 8, { 10, 99, 0, host }, { 0 } }
static const struct address anywhere = { AF_INET, (PORT & 0xff) << 8 | PORT >> 8, { 0 }, { 0 } };
static const struct address host = AT(1), guest = AT(2);

static char buffer[1 << 16];

/* A socket; one for packets has room for all of those that it gets. */
static int open_socket(int type)
{
	static const int room = 4 << 20, on = 1;
	int socket = call(SOCKET, AF_INET, type, 0, 0, 0);

	if (socket < 0)
		FAIL("net: socket failed");
	if (type == SOCK_DGRAM) {
		call(SETSOCKOPT, socket, SOL_SOCKET, SO_RCVBUFFORCE, (long)&room, sizeof room);
	} else {
		call(SETSOCKOPT, socket, SOL_SOCKET, SO_REUSEADDR, (long)&on, sizeof on);
		call(SETSOCKOPT, socket, IPPROTO_TCP, TCP_NODELAY, (long)&on, sizeof on);
	}
	return socket;
}

static void send(int socket, long size)
{
	long n;

	for (; size > 0; size -= n) {
		n = call(WRITE, socket, (long)buffer, size < sizeof buffer ? size : sizeof buffer, 0, 0);
		if (n <= 0)
			FAIL("net: nothing can be sent");
	}
}

static void receive(int socket, long size)
{
	long n;

	for (; size > 0; size -= n) {
		n = call(READ, socket, (long)buffer, size < sizeof buffer ? size : sizeof buffer, 0, 0);
		if (n <= 0)
			FAIL("net: nothing comes");
	}
}
