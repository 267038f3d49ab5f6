// Catch2 version 2 (Debian 12) and version 3 (newer systems) differ in their header's name only,
// as far as our tests use them. Every test includes this file instead.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
