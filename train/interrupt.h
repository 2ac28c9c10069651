// train/interrupt.h - signals that ask a run for a tidy end, or for a checkpoint.
//
//   INT (Ctrl-C), TERM, HUP (the terminal was closed), USR2      save and stop
//   USR1                                                         save and go on
// The first of them is acknowledged at once, on stderr. A second Ctrl-C ends the program at once;
// the others may come again, as when a terminal closes and its session ends.
#pragma once

namespace murmur {

void catch_interrupts();
bool interrupted();
int saves_asked();             // how often since catch_interrupts()
double seconds_since_start();  // of the program

}  // namespace murmur
