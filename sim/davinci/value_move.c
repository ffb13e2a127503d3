/* What the moves of an Ascend core leave where (values.h). */
#include "davinci/value_parts.h"

static void fill_elements(unsigned char *to, size_t count, const void *value, size_t bytes) {
  for (size_t n = 0; n < count; ++n) memcpy(to + n * bytes, value, bytes);
}

/* A piece that ends inside a block of UB or L1 is filled up to the block's end where fill_bytes says so; without it the rest
 * stays as it was. */
void dv_value_copy(const dv_copy *copy, void *to, const void *from, int adds) {
  unsigned char *out = to;
  const unsigned char *in = from;
  const int pads = copy->fill_bytes && copy->to.memory != DV_GM;
  const size_t left = pads ? (size_t)copy->left_pad * copy->fill_bytes : 0;
  for (uint32_t row = 0; row < copy->rows; ++row, out += copy->to_stride, in += copy->from_stride) {
    if (adds) {
      dv_accumulate(copy->type, out, in, copy->bytes / dv_type_bytes(copy->type));
      continue;
    }
    const void *const fill = copy->fills_with_first ? in : (const void *)&copy->fill;
    memmove(out + left, in, copy->bytes);
    if (!pads) continue;
    const size_t end = left + copy->bytes;
    size_t behind = (size_t)copy->right_pad * copy->fill_bytes;
    behind += (DV_BLOCK - (end + behind) % DV_BLOCK) % DV_BLOCK;
    fill_elements(out, copy->left_pad, fill, copy->fill_bytes);
    fill_elements(out + end, behind / copy->fill_bytes, fill, copy->fill_bytes);
  }
}

/* The last block of a row is filled with zeros, as documented; rows up to a whole fractal are left alone. */
void dv_value_nd2nz(const dv_nd2nz *move, void *to, const void *from) {
  const size_t size = move->element_bytes, row_bytes = move->columns * size;
  const size_t to_column = (size_t)move->to_column * DV_BLOCK, to_row = (size_t)move->to_row * DV_BLOCK;
  for (uint32_t matrix = 0; matrix < move->matrices; ++matrix) {
    unsigned char *out = (unsigned char *)to + (size_t)matrix * move->to_matrix * size;
    const unsigned char *in = (const unsigned char *)from + (size_t)matrix * move->from_matrix * size;
    for (uint32_t row = 0; row < move->rows; ++row, out += to_row, in += move->from_row * size) {
      unsigned char *block = out;
      size_t byte = 0;
      for (; byte + DV_BLOCK <= row_bytes; byte += DV_BLOCK, block += to_column) memcpy(block, in + byte, DV_BLOCK);
      if (byte < row_bytes) {
        memcpy(block, in + byte, row_bytes - byte);
        memset(block + (row_bytes - byte), 0, DV_BLOCK - (row_bytes - byte));
      }
    }
  }
}

/* A square of 16 x 16 elements of 2 bytes. */
static void transpose_fractal(void *to, const void *from) {
  uint16_t in[16][16], out[16][16];
  memcpy(in, from, sizeof in);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 16; ++column) out[column][row] = in[row][column];
  memcpy(to, out, sizeof out);
}

/* Only elements of 2 bytes are transposed, as documented. */
void dv_value_load2d(const dv_load2d *load, void *to, const void *from) {
  unsigned char *out = to;
  const unsigned char *in = (const unsigned char *)from + (size_t)load->start * DV_FRACTAL;
  const size_t step = ((size_t)load->to_gap + 1) * DV_FRACTAL;
  for (uint32_t n = 0; n < load->repeats; ++n, out += step, in += (size_t)load->from_stride * DV_FRACTAL) {
    if (load->transpose && load->element_bytes == 2) transpose_fractal(out, in);
    else memcpy(out, in, DV_FRACTAL);
  }
}

/* A square is one fractal of 16 x 16 (2 bytes), two of 16 x 8 side by side (4) or two of 16 x 32 on top of each
 * other (1). Documented are the squares; how two fractals make one is read from their shapes. */
void dv_value_load_transposed(const dv_load_transposed *load, void *to, const void *from) {
  const size_t size = load->element_bytes, wide = DV_BLOCK / size, side = size == 1 ? 32 : 16;
  const size_t square = side * side * size;
  const unsigned char *in = (const unsigned char *)from + load->start * square;
  unsigned char *out = to;
  for (uint32_t n = 0; n < load->repeats; ++n) {
    unsigned char from_square[1024];
    memcpy(from_square, in, square);
    for (size_t row = 0; row < side; ++row)
      for (size_t column = 0; column < side; ++column) {
        const size_t fractal = column / wide + row / 16, inside = (row % 16) * wide + column % wide;
        const size_t source = row / wide + column / 16, source_inside = (column % 16) * wide + row % wide;
        memcpy(out + fractal * (1 + load->to_fractal_gap) * DV_FRACTAL + inside * size,
               from_square + source * DV_FRACTAL + source_inside * size, size);
      }
    in += load->from_stride * square;
    out += (1 + (size_t)load->to_gap) * DV_FRACTAL; /* from the end of the first fractal */
  }
}

void dv_value_fill(const dv_fill *fill, void *to) {
  const size_t unit = fill->to.memory == DV_L1 ? DV_BLOCK : DV_FRACTAL, bytes = fill->blocks * unit;
  unsigned char *out = to;
  for (uint32_t n = 0; n < fill->repeats; ++n, out += bytes + fill->gap * unit)
    fill_elements(out, bytes / fill->element_bytes, &fill->value, fill->element_bytes);
}
