//! Two real machines on a virtual clock, with a network between them that can be as bad as the
//! test wants.

mod basics;
mod hostile;
mod life;
mod load;
mod pair;
