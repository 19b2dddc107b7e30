// The kernel with tiles in plain C++.

#include "stages.hpp"
#include "tiles_portable.hpp"

namespace enlarger {
void (*const compute_portable)(Work &, void *) = compute<PortableTiles>;
}
