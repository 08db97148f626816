//! Per peer: candidates, sealed probes, the chosen path.
