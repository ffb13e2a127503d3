/* Bandwidth that all cores of a chip share (L2, HBM), on the clock: time in slots, each of which holds so many bytes. Whoever
 * asks first has the bytes, so that requests need not come in the order of their times; each is bounded by its own rate, so
 * that cores share a slot unless one of them alone could fill it. What nobody used of a slot's past goes to whoever begins late
 * in it, so a slot is to be much shorter than a transfer. */
#ifndef DV_BUS_H
#define DV_BUS_H

typedef struct dv_bus dv_bus;

/* NULL: no memory, or a rate or slot that is not above 0. */
dv_bus *dv_bus_open(double bytes_a_cycle, double slot_cycles);
void dv_bus_close(dv_bus *bus);

/* When a transfer ends, in cycles, that begins no sooner than `begin` and never exceeds `most` bytes a cycle, which is above 0.
 * Negative: no memory, or no such rate. */
double dv_bus_transfer(dv_bus *bus, double begin, double bytes, double most);

#endif
