#include "cuda/compose.h"
