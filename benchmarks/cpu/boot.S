/* The first sector of a PC's disk: 64-bit mode, a program from the disk, and two system calls for it.
 *
 * The program is what the rest of the disk holds, an image of memory that is read to LOAD. It gets the stack
 * pointer STACK and begins at ENTRY, at the highest privilege, with interrupts off and SSE on. All of the
 * lowest GiB is mapped where it is. write(2) goes to port 0xE9, where Bochs and QEMU have a console, after
 * the number of ticks of the time stamp counter since the last write in hexadecimal; exit(2) halts.
 *
 * LOAD, PIECES (of 256 sectors), ENTRY and STACK are given to the assembler. Registers are those of the Intel
 * SDM, Volume 3, and of ATA-2 (the primary channel, programmed I/O, addresses of 28 bits).
 */
        .set LEVEL_4, 0x1000            /* Page tables. */
        .set LEVEL_3, 0x2000
        .set LEVEL_2, 0x3000
        .set OWN_STACK, 0x7000
        .set PRESENT_WRITABLE, 3
        .set LARGE, 0x80
        .set CODE, 8                    /* Selectors. */
        .set DATA, 16
        .set EFER, 0xc0000080           /* Model-specific registers. */
        .set STAR, 0xc0000081
        .set LSTAR, 0xc0000082
        .set FMASK, 0xc0000084
        .set ATA, 0x1f0
        .set CONSOLE, 0xe9

        .code16
        .globl _start
_start: cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $OWN_STACK, %sp
        inb     $0x92, %al              /* Address line 20. */
        orb     $2, %al
        outb    %al, $0x92

        movw    $LEVEL_4, %di
        movw    $0x3000 / 4, %cx
        xorl    %eax, %eax
        rep stosl
        movl    $LEVEL_3 + PRESENT_WRITABLE, LEVEL_4
        movl    $LEVEL_2 + PRESENT_WRITABLE, LEVEL_3
        movw    $LEVEL_2, %di
        movl    $LARGE + PRESENT_WRITABLE, %eax
1:      movl    %eax, (%di)
        addl    $0x200000, %eax
        addw    $8, %di
        cmpw    $LEVEL_2 + 0x1000, %di
        jne     1b

        movl    $0x620, %eax            /* CR4: PAE, OSFXSR, OSXMMEXCPT. */
        movl    %eax, %cr4
        movl    $LEVEL_4, %eax
        movl    %eax, %cr3
        movl    $EFER, %ecx
        rdmsr
        orl     $0x101, %eax            /* LME, SCE. */
        wrmsr
        lgdt    table
        movl    $0x80000033, %eax       /* CR0: PG, NE, ET, MP, PE. */
        movl    %eax, %cr0
        ljmp    $CODE, $long

        .code64
long:   movw    $DATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $STAR, %ecx
        xorl    %eax, %eax
        movl    $CODE, %edx
        wrmsr
        movl    $LSTAR, %ecx
        movl    $service, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $FMASK, %ecx
        xorl    %eax, %eax
        wrmsr

        movl    $LOAD, %edi
        movl    $1, %ebx                /* The next sector to read. */
        movl    $PIECES, %ebp
piece:  movw    $ATA + 2, %dx
        xorl    %eax, %eax              /* 256 sectors. */
        outb    %al, %dx
        movl    %ebx, %eax
        orl     $0xe0000000, %eax       /* A linear address, the first drive. */
        movl    $4, %ecx
1:      incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        loop    1b
        incw    %dx
        movb    $0x20, %al              /* READ SECTORS. */
        outb    %al, %dx
        movl    $256, %esi
sector: movw    $ATA + 7, %dx
1:      inb     %dx, %al
        andb    $0x88, %al              /* BSY, DRQ. */
        cmpb    $0x08, %al
        jne     1b
        movw    $ATA, %dx
        movl    $256, %ecx
        rep insw
        decl    %esi
        jnz     sector
        addl    $256, %ebx
        decl    %ebp
        jnz     piece

        movl    $STACK, %esp
        rdtsc
        movl    %eax, last
        movl    %edx, last + 4
        movl    $ENTRY, %eax
        jmp     *%rax

/* write(rdi, rsi, rdx) and exit. The program may have data below its stack pointer. */
service:
        cmpl    $1, %eax
        jne     halt
        movq    %rsp, stack
        movl    $OWN_STACK, %esp
        pushq   %rcx
        pushq   %rsi
        pushq   %rdx
        movq    %rdx, %rcx
        rdtsc
        shlq    $32, %rdx
        orq     %rax, %rdx
        subq    last, %rdx
        pushq   %rcx
        movl    $16, %ecx
1:      rolq    $4, %rdx
        movb    %dl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     2f
        addb    $'a' - '0' - 10, %al
2:      outb    %al, $CONSOLE
        loop    1b
        movb    $' ', %al
        outb    %al, $CONSOLE
        popq    %rcx
        movw    $CONSOLE, %dx
        rep outsb
        rdtsc
        movl    %eax, last
        movl    %edx, last + 4
        popq    %rdx
        popq    %rsi
        popq    %rcx
        movq    %rdx, %rax
        movq    stack, %rsp
        jmp     *%rcx
halt:   hlt
        jmp     halt

        .balign 8
descriptors:
        .quad   0
        .quad   0x00209a0000000000      /* 64-bit code. */
        .quad   0x0000920000000000      /* Data. */
table:  .word   table - descriptors - 1
        .long   descriptors

        .set last, 0x6000
        .set stack, 0x6008
        .org    510
        .word   0xaa55
