/* math_constants.h - as CUDA's. */
#ifndef MODE_EMULATOR_MATH_CONSTANTS_H
#define MODE_EMULATOR_MATH_CONSTANTS_H
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_PI_F 3.141592654f
#endif
