// train/interrupt.h - Ctrl-C asks for a tidy end; a second one ends at once.
#pragma once

namespace murmur {

void catch_interrupts();
bool interrupted();

}  // namespace murmur
