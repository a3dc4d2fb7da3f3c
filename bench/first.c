/* The unit of restart.py: writes its pid and CLOCK_MONOTONIC (ns) to the FIFO it is given, first of all, and waits. */
#include <fcntl.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    int64_t record[2];
    int fifo;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (argc != 2 || (fifo = open(argv[1], O_WRONLY)) < 0)
        return 1;
    record[0] = getpid();
    record[1] = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    if (write(fifo, record, sizeof record) != sizeof record)
        return 1;
    close(fifo);
    for (;;)
        pause();
}
