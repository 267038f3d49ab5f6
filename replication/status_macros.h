// Early returns for absl::Status and StatusOr, and the assertion that stays on in release builds.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ECHOFS_CONCAT_INNER(a, b) a##b
#define ECHOFS_CONCAT(a, b) ECHOFS_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define ECHOFS_RETURN_IF_ERROR(expr)                                                    \
  do {                                                                                  \
    if (absl::Status echofs_status = (expr); !echofs_status.ok()) return echofs_status; \
  } while (false)

// ECHOFS_ASSIGN_OR_RETURN(auto x, F()): assigns the value of a StatusOr or returns its error.
#define ECHOFS_ASSIGN_OR_RETURN(lhs, expr) \
  ECHOFS_ASSIGN_OR_RETURN_INNER(ECHOFS_CONCAT(echofs_statusor_, __LINE__), lhs, expr)
#define ECHOFS_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return std::move(tmp).status();      \
  lhs = *std::move(tmp)

// Ends the process when an invariant does not hold: going on would damage data. On in all builds.
#define ECHOFS_CHECK(condition)                                                              \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
