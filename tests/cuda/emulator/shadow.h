/* A group's shared memory, and what is known about each of its words: who wrote and who read it since which barrier,
 * and whether a copy is under way to it. */
#ifndef LK_TESTS_CUDA_EMULATOR_SHADOW_H
#define LK_TESTS_CUDA_EMULATOR_SHADOW_H

void shadow_reset(unsigned bytes); /* for a new group: nothing is written */
void shadow_barrier();             /* all that is before it is ordered before all that follows */
bool shadow_is_inside(unsigned address, unsigned bytes);
char *shadow_bytes(unsigned address); /* where they lie; inside only */

/* By a lane, of a multiple of 4 bytes; what is wrong is reported. */
void shadow_read(unsigned address, unsigned bytes, void *to, unsigned lane, int line);
void shadow_write(unsigned address, unsigned bytes, unsigned lane, int line);
/* 16 bytes: from the beginning to the end only the copy may touch them, then they count as written by the lane. */
void shadow_copy_begins(unsigned address, unsigned lane, int line);
void shadow_copy_ends(unsigned address, unsigned lane);

/* (emulator.cc) counts a problem and keeps the text of the first */
void emulator_problem(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
