//! What nodule costs: `just bench`.
//!
//! [`start`] is a pod's start through the agent, in a cluster; [`crowd`] is an agent with a thousand pods. [`sandbox`] is what is below the agent: containers as it
//! orders them from the zygote, without a cluster: how fast they start, what they hold, what they do while idle, and how
//! fast a guest is. What is compared runs in the same minutes: only ratios travel from machine to machine.
//!
//! Of `sandbox`: [`container`] starts one, through a [`zygote`] or by an exec; [`program`] makes programs of any size;
//! [`latency`], [`burst`], [`density`], [`idle`], [`speed`] and [`serve`] (by [`load`]) measure; [`table`] and [`plot`] show.

mod burst;
mod compiler;
mod container;
pub mod crowd;
mod density;
mod idle;
mod latency;
mod load;
mod machine;
mod meter;
mod plot;
mod program;
pub mod sandbox;
mod serve;
mod speed;
pub mod start;
mod stats;
mod table;
mod zygote;
