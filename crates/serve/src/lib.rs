//! Adtally.
