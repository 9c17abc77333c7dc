"""What is asked: tasks by name, where their rows come from, how they are split and stored."""
