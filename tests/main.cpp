// tests/main.cpp - doctest's main; every test file is tests/ROOM/SUBJECT_test.cpp.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
