#include "cuda/patch_grid.h"
