#include "cuda/noise.h"
