//! Composes engine and KV sender behind one rpc.
