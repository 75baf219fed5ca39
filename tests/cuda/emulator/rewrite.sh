#!/bin/sh
# rewrite.sh FROM TO - translates CUDA's extensions of C++ grammar to C++. Line numbers stay.
#   kernel<<<grid, block, shared, stream>>>(a, b)  ->  MODE_EMU_KERNEL(kernel)(grid, block, shared, stream)(a, b)
#   extern __shared__ float x[];                   ->  float *x = the launch's dynamic shared memory
#   __shared__ float x[3][4];                      ->  MODE_EMU_SHARED(x, float[3][4])
#   void __launch_bounds__(n) kernel(...)\n{       ->  the same, with a check of the block size after the brace
set -eu
{
    echo "#line 1 \"$1\""
    sed -E '
        s/([A-Za-z_][A-Za-z0-9_:]*(<[^;(){}]*>)?)<<</MODE_EMU_KERNEL(\1)(/g
        s/>>>[ 	]*\(/)(/g
        s/extern[ ]+__shared__[ ]+((__align__|alignas)\([^)]*\)[ ]*)?([^;]*[^; ])[ ]+([A-Za-z_][A-Za-z0-9_]*)\[\][ ]*;/\3 *\4 = (\3 *)mode_emu::dynamic_shared_memory();/
        s/(^|[^A-Za-z0-9_])(static[ ]+)?__shared__[ ]+((__align__|alignas)\([^)]*\)[ ]*)?([^;,=]*[ *>])([A-Za-z_][A-Za-z0-9_]*)((\[[^];]*\])*)[ ]*;/\1MODE_EMU_SHARED(\6, \5\7);/
        /__launch_bounds__\(/{
            h
            x
            s/.*__launch_bounds__\((([^()]|\([^()]*\))*)\).*/{ mode_emu::check_bounds(\1);/
            x
        }
        /^\{$/{
            x
            s/^$/{/
            p
            s/.*//
            h
            d
        }
    ' "$1"
} >"$2.new"
mv "$2.new" "$2"
