//! Composes KV receiver and engine behind one rpc.
