"""Runs on a Slurm cluster: submitted by submitit, met by Slurm's own variables, stopped, requeued and recovered without a watcher.

profile     what a cluster wants (partition, account, environment), from configs/cluster/*.yaml
preflight   everything that can be refused before a job is in the queue
submit      the job's folder, its sbatch script, its submission
job         what every task runs: the rendezvous (trainer/rendezvous.py), then the program itself
life        the beginning and the end of each start of a job: requeue or not
status      what runs, since when, how far; logs; cancel
client      the Slurm commands, as data
"""
