// Ascend C on x86: the names a kernel for Ascend 910B uses, over the instructions of an emulated core (instructions.h). A clean-room
// reconstruction from the vendor's public API reference; no line of the vendor's toolkit is here. Only the subset the project's
// kernels and its witnesses need: what is missing does not compile.
#ifndef DV_KERNEL_OPERATOR_H
#define DV_KERNEL_OPERATOR_H

#include "kernel_types.h"
#include "kernel_sync.h"
#include "kernel_tensor.h"
#include "kernel_move.h"
#include "kernel_cube.h"
#include "kernel_vector.h"
#include "kernel_select.h"
#include "kernel_reduce.h"

#endif
