//! SimDriver: the same trait over virtual time and a seeded network.
