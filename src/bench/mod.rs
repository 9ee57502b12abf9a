//! The bench robot.
