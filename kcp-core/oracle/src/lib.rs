//! Safe wrapper over the C reference implementation of KCP, for tests and benches only.
