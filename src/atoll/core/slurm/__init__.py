"""What Slurm's users bring along: sbatch's options, its notations, and what they mean for a job here. Pure."""
