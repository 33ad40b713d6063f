//! Hand-off messages.
