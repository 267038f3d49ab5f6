// The workloads of echofs_workload by theme; workload.cc says what each of them does.
#pragma once

#include "tests/bench/options.h"

namespace echofs::bench {

// reading.cc
void Read(const Options& options);
void Open(const Options& options);
// writing.cc
void Write(const Options& options);
void Bulk(const Options& options);
void Vacuum(const Options& options);
void Fill(const Options& options);
// several.cc
void Mixed(const Options& options);
void Paced(const Options& options);
// arrival.cc
void Visible(const Options& options);
void Stream(const Options& options);
void Catchup(const Options& options);

}  // namespace echofs::bench
