//! The HTTP side: health and metrics of every process, and the control API of a sync without Kubernetes.

pub mod control;
pub mod follow;
pub mod guard;
pub mod health;
pub mod http;
pub mod numbers;
pub mod page;
pub mod request;
pub mod standing;
pub mod status;
pub mod wish;
