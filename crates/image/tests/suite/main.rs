//! Drives the crate's public interface against a registry and a compiler, over sockets and
//! processes.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod collections;
#[cfg(test)]
mod compilations;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod mirrors;
#[cfg(test)]
mod node;
#[cfg(test)]
mod preloads;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod seals;
#[cfg(test)]
mod silences;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod trees;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod windows;
