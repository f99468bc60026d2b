invlpg (%rdi)
mov $0x2a,%al
out %al,$0xf4
