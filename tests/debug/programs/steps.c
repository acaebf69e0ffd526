/* What gdb is asked to look at: calls, globals, a signal handler, floating point, an exit status. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int counter;
long table[4] = {10, 20, 30, 40};
double ratio = 0.5;
volatile int handled;

int twice(int number)
{
    return 2 * number;
}

int work(int number)
{
    int result = twice(number);
    counter += result;
    table[number % 4] = counter;
    return counter;
}

void handler(int number)
{
    handled = number;
}

int main(int argc, char **argv)
{
    signal(SIGUSR1, handler);
    for (int i = 1; i <= 3; i++)
        work(i);
    ratio *= counter;
    kill(getpid(), SIGUSR1);
    printf("counter %d handled %d ratio %g table %ld\n", counter, handled, ratio, table[0]);
    return 7;
}
