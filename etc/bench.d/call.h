/* What a program without a C library needs: system calls, and a mark for the host. */

enum { WRITE = 1, IOCTL = 16, NANOSLEEP = 35, REBOOT = 169 };

static long call(long number, long a, long b, long c, long d, long e)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

/*
 * What tells the host is CPUID with a leaf that nobody else asks for: it always
 * leaves the guest, never leaves the kernel, and is seen there by the tracepoint
 * kvm:kvm_cpuid.
 */
static void mark(unsigned leaf)
{
	unsigned b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}
