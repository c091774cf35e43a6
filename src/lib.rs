//! clustersync
